"""Mathematics as people and models write it: read as a whole or not at all, and compared by value.

``statements`` reads the tree of a text, ``equality`` says whether two trees mean the same.
"""
