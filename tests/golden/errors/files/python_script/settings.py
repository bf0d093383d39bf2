num_layers = 4
hidden_size = [64][0]
