"""From files and words of a command line to values that know where they were written; older keys become today's."""
