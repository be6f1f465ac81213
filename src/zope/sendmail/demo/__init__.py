"""The demo: a small application whose mail follows its transactions, and the story of what then happens.

``site.zcml`` is made to be copied; ``shop.py`` is how an application sends.  The rest is the stage.
"""
