"""Statements about pictures, written by people, true or false (NLVR, Suhr et al. 2017).

A picture shows three boxes with shapes in three colours.  The corpus is not part of this project: CC BY 4.0,
from `lil-lab/nlvr`; name the authors where you publish pictures or statements of it.
"""
