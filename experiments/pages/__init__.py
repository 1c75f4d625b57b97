"""Pages that people read: report, gallery, the generated parts of README and docs/."""
