"""Evaluation of a model by the tasks of lm-eval: which tasks, how their requests are shared and scored, and what is written down."""
