"""What a layer and a model cost: parameters, multiply-adds, bytes, milliseconds."""
