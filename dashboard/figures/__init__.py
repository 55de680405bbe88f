"""The worked example's drawings: grids of numbers and small maps as HTML that can be clicked."""
