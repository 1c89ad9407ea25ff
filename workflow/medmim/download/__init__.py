"""Downloads of the sources from their owners' servers, into folders of the owners' own layout.

A module a source (medmim.sources.embed.download, ...) says what is to be fetched: first the owner's tables, then, as the source's
adapter reads those, just the files it would use. The rest is shared: `transfer` brings one file whole to its place, `folder`
many at once, `http` and `s3` are the two ways to ask a server, `unpack` takes files out of archives, `ledger` remembers,
`credentials` finds the user's, and `preflight` says beforehand what is missing.
"""
