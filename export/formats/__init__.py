"""LiteRT, ONNX and OpenVINO files made from a SavedModel."""
