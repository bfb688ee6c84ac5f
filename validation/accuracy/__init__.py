"""Accuracy on labelled pictures: find the labels, count the right answers."""
