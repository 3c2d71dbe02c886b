"""External generation: a frozen reader, a connector and a denoiser as one model."""
