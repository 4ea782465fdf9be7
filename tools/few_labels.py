from simclr_mm.commands.few_labels.command import main

if __name__ == '__main__':
    main()
