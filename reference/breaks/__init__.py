"""The reverse pass with one rule of it broken: which break makes the gradient that was returned?

Autodiff goes back over the operations of a loss and multiplies by the derivative of each. A
gradient by hand is the same walk, and where it is wrong, some rule of it is: a path forgotten, a
factor of another step, a slope of another function. ``tape`` records the operations with their
values and the lines of the user's that they come from, ``reverse`` walks back over them with many
breaks at once, ``kinds`` lists the breaks of any loss, ``search`` finds the one that explains a
gradient, and ``words`` says it.
"""
