"""What holds the weights and updates them."""
