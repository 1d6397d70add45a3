"""Evaluation of trained encoders on tasks: what an encoder is good for (`cnnjepa evaluate`)."""
