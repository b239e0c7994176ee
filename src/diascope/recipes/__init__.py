"""Complete runs by name: functions that return a whole frozen config, and the code that carries one out.

gemma_scope_2(...)   every published choice of the release, scaled to a budget by a stated rule
demo(...)            the README's demo: an SAE and a skip-transcoder on Gemma 3 270M from one pass
"""
