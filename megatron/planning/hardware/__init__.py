"""What a run is planned for: devices by product, and clusters of them."""
