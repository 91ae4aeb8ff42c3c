"""`python -m ttt_core.sandbox.larger`."""

from ttt_core.sandbox.larger.recipe import main

# Worker processes import this module, too.
if __name__ == "__main__":
    main()
