#!/bin/sh
# Greets whoever is named in the body.
name=$(cat)
echo "Hello, ${name:-world}!"
