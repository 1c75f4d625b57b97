"""iGSM: grade-school problems over a hidden structure, as text and in a closed vocabulary.

Difficulty is the op count: the number of operations that the answer needs. The construction is that
of Ye, Xu, Li and Allen-Zhu (2024), Physics of Language Models Part 2.1, arXiv 2407.20311.
"""

from __future__ import annotations

from synth.tasks.igsm.names import CATEGORIES
from synth.tasks.igsm.problems import PRESETS, Preset, Problem, problems
from synth.tasks.igsm.verdict import Verdict
from synth.tasks.igsm.verify import verify

__all__ = ["CATEGORIES", "PRESETS", "Preset", "Problem", "Verdict", "problems", "verify"]
