"""Look at an installation from the machine of one of its processes, and say what to mend."""
