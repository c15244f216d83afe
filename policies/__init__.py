"""Everything that maps observations to commands behind the one `robonav.types.Policy` protocol.

`policies.registry.make_policy` makes any of them by name or folder; this package itself imports none of them.
"""
