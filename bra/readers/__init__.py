"""Files of strangers, read within bounds."""
