"""Samples: what a model answered to the same few validation questions after every validation."""
