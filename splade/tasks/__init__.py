"""What each command does: an experiment in, a result out."""
