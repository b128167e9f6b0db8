"""How calls are made: channels, error mapping, paging, downloads. What users call stands beside this room."""
