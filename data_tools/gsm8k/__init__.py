"""Word problems of school arithmetic with worked answers, written by people (GSM8K, Cobbe et al. 2021).

The file is not part of this project: MIT licence, copyright OpenAI, from `openai/grade-school-math`.
"""
