"""What `deepy.py doctor` looks at: this machine, what a config asks of it, and the nodes of a cluster. Facts are gathered, then judged."""
