"""Fine-tune a feature extractor: recipes, pictures, the Keras model, and the training loop."""
