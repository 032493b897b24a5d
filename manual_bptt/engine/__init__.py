"""How a computation goes through time and over a batch, whatever the cell and the loss.

``workers`` shares a batch out, ``segments`` keeps few states of a long sequence, ``blocks`` does
what it does to many steps at once, and calls a cell for the steps of each block.
"""
