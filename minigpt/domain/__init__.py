"""Domain definitions: YAML files that name a domain's text, question sets and sample prompts."""
