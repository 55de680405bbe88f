"""What was trained here: NAME.safetensors, half-precision numbers, beside NAME.json, its model card."""
