"""What every other folder stands on and that computes nothing: checks of arguments, files, text, the environment."""
