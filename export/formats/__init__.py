"""Write a SavedModel as LiteRT, ONNX and OpenVINO files."""
