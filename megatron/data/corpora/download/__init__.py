"""Files over HTTP: in parallel, resumed where they broke off, verified, and whole or not there."""
