module shoal/runner-binary

go 1.19
