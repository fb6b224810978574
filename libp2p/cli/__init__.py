"""The command ``libp2p``: keys, connections and messages from a terminal or a script.

Every command writes its results to standard output, and what it has to say besides to standard error. With ``--json``
the results are JSON, one object a line. The exit status is

* 0 when the command did what it was asked for;
* 1 when a peer or the network did not play along;
* 2 when it was asked for something that cannot be: an unknown option, a bad address, a key file that cannot be read;
* 130 when it was interrupted (Ctrl-C), 143 when it was terminated. Such a command has said goodbye to its peers.

It needs the extra ``cli``: ``pip install 'libp2p-trio[cli]'``.
"""
