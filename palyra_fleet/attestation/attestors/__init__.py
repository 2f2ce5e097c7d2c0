"""How a worker may prove what it is: one module for each attestor, behind one port."""
