"""The GPT as a list of layer specs, and the layers themselves: attention, MLPs, norms, positions, embedding and head."""
