"""How other frameworks name the parameters of the networks."""
