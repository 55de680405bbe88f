"""How a CPU and a GPU attend fast."""
