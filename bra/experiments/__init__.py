"""Many runs: settings and layers side by side, changed pictures, folders."""
