"""Files of the first implementation become files of the current version, under the same names.

`survey` looks at a folder and `plan` writes down what it saw; `staging` makes the new file of one old one; `apply`
gives it the name, and `undo` takes it back or makes it final. What they do stands in a `journal` in a `workplace`
inside the folder, so that each goes on where another was killed. `MigrationUtilities` is the way in.
"""
