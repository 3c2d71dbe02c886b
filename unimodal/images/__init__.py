"""Pictures as numbers: codecs between pixels and latents, their patches, and how codecs are trained."""
