"""What a field is fitted to: images, poses, stored features, label maps."""
