"""What comes in over HTTP and what goes out; nothing gets past these that the house does not expect."""
