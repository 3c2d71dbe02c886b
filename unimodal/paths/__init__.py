"""Paths: the ways an image is made.  One file a path, one line in `PATHS`."""

from unimodal.paths.flow import FlowPath

PATHS = {"flow": FlowPath}
