"""What lets many visitors share one process: jobs, cache, uploads, configuration."""
