"""What is minimised: one file for each objective, chosen by `train_impl`."""
