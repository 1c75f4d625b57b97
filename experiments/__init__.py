"""Recipes, runs, results, figures: the only place with files, processes and plots."""
