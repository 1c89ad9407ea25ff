"""Library behind the Med-MIM pipeline: one package a stage, called by workflow/scripts."""
